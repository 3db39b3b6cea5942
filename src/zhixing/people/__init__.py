"""Faces, gaze and pose: regression, verification, and softmax over many identities."""
