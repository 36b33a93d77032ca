"""Tables of models, trained and measured on equal terms."""
