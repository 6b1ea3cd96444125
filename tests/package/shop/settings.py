"""A module of the app's own, which has this name by chance."""

MINE = "settings"
