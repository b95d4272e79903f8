"""Make scenario sets with a language model, and clean the ones there are.

The pipeline of EIBench, arXiv 2606.15532: seed combination, expansion, goal, worst case,
anchor repair, format check, removal of near-copies. Prompts and pools are ours.
"""
