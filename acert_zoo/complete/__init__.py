"""Complete verification: every image decided, with a proof of either answer (docs/decide.md)."""
