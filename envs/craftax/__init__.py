"""Craftax and Craftax-Classic (Matthews et al., arXiv 2402.16801) with captions."""
