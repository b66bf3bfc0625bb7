"""ddpm_edu: the helper package of the course (see README.md)."""
