"""What recipes take of a GPU, computed: arithmetic, memory and hours."""
