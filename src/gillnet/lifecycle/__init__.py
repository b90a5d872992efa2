"""The life of a model: labels, training, evaluation, promotion."""
