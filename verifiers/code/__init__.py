"""Programs as answers: they are run in a sandbox, and judged outside of it.

Invariant: the candidate never sees an expected value, and nothing it does reaches what judges it but plain values.
`candidate_runner` and `judge_runner` are programs that run inside sandboxes; `relay` carries lines between them.
"""
