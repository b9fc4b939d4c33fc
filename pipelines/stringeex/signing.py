"""How an API key signs a token. PyJWT takes a tenth of a second to import: what asks the API nothing does without."""

from __future__ import annotations

import jwt
from jwt.algorithms import HMACAlgorithm

from transforms.errors import AuthenticationError


class _KeyAsIssued(HMACAlgorithm):
    """HS256 with the key that the provider issued, whose length is not ours to warn about."""

    def check_key_length(self, key: bytes) -> str | None:
        return None


_SIGNER = jwt.PyJWS(algorithms=[])
_SIGNER.register_algorithm("HS256", _KeyAsIssued(HMACAlgorithm.SHA256))


def signed_token(claims: bytes, secret: str) -> str:
    """Return the token that carries ``claims``, a JSON object. Raises ``AuthenticationError`` for what is no secret."""
    try:
        return _SIGNER.encode(claims, secret, "HS256", headers={"typ": "JWT", "cty": "stringee-api;v=1"})
    except jwt.InvalidKeyError as error:
        raise AuthenticationError("STRINGEEX_API_KEY_SECRET is no secret of an API key; check it") from error
