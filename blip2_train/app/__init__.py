"""The web app: a page on this machine to use trained models with, and to look at data. Needs the extra `app`."""
