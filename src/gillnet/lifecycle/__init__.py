"""The life of a model: labels, training, evaluation, and the reports of the bundled scenarios."""
