"""What a server is started with: the checked settings, the app, and gunicorn's configuration."""
