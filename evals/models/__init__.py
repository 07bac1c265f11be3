"""What a model argument means, and the only place that tokenizes a prompt."""
