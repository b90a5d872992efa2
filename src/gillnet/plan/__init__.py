"""The plan: typed nodes that say what a pipeline computes, their types, their JSON form and how they print."""
