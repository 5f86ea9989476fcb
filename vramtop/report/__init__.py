"""Post-mortems: one model, rendered as HTML and PNG."""
