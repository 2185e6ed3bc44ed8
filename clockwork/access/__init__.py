"""Who may call: API keys, tokens of an OpenID Connect issuer, and the gate that asks for them."""
