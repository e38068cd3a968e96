"""Who calls, and what they may: certificates, tokens, JWTs, the policy. Knows nothing of gRPC and HTTP."""
