"""Who may publish and who may read: keys, tokens, channel patterns, origins, client addresses.

`policy` has the rules as a table, `authenticator` applies them. The package imports none of its modules: the settings
take patterns and limits from it, in gunicorn's master, which must not load what gevent is to patch in the workers. For
the same reason `keys` and `tokens`, which import PyJWT and cryptography, are imported only where tokens are configured.
"""
