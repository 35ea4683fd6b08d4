"""Facts: one schema, one door (`Store.run`), one file of queries a subject. A query is a plain function of a `Tx`."""
