"""The bundled pipelines: complete definitions to run as they are, and to copy as a start of one's own."""
