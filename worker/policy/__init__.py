"""What is judged by: YAML files in plain words become policies, and policies become matrices.

In: text that an author wrote. Out: `Policy` (immutable, with a digest), every finding with its place, and
`CompiledPolicy` for one encoder. Never a score and never an action: those are `scoring` and `verdict`.
"""
