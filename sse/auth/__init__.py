"""Who may publish and who may read: keys, tokens, channel patterns, origins, client addresses.

``policy`` holds the rules as a table; ``authenticator`` applies them. This file imports none of the modules: gunicorn's
master loads the settings, which take patterns and limits from here, and the master must not import modules that gevent
patches in the workers. For the same reason ``keys`` and ``tokens``, which import PyJWT and cryptography, are imported
only where tokens are configured.
"""
