"""What a policy's actions do when the same image is changed, and its margins when a group of people is named.

In: embeddings, a compiled policy, a text tower. Out: counts, drifts, shifts, and what can be said of them in words.
Never an image file: who changes and looks at images is handed in.
"""
