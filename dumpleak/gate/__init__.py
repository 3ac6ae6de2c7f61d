"""Conditions, baselines and suppressions: what makes an answer fail a build."""
