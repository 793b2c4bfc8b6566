"""JSON Web Tokens of an OpenID Connect issuer: their bearers may use the API. The only folder that imports PyJWT."""
