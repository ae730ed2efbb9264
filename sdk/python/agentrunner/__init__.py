"""Agent Runner for Python: what an executor reads on stdin, its environment, and the coordinator's sessions.

Standard library only. An executor of this repository finds the same modules in lib/.
"""
