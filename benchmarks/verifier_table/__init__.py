"""Pairs of a right answer and a response whose relation is known, and the two verifiers that judge them."""
