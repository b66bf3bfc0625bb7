"""What `python -m ddpm_edu` does, by command; `flags` says what may be asked."""

PROG = "python -m ddpm_edu"
