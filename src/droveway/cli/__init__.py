"""Operator commands: views of the API's own queries, over HTTP, with the credentials of clouds.yaml."""
