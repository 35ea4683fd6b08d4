"""The claims about placing, by what they need: `chosen` the columns alone, `claimed` a store as well."""
