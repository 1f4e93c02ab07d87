"""XLand-MiniGrid (arXiv 2312.12044) with captions."""
