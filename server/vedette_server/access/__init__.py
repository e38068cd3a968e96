"""Authentication and authorisation: certificates, tokens, JWTs, the policy. Knows nothing of gRPC or HTTP."""
