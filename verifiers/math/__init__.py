"""Mathematical answers: read LaTeX and plain text, and decide whether two answers are the same.

`extraction` finds an answer in a response, `notation` and `parser` read it into `expression` nodes, `compare` decides,
with exact numbers (`rational`), proven numerical bounds (`numerical`) and, in a worker of `pool`, computer algebra
(`symbolic`). Nothing here evaluates text: names in an answer only ever become symbols.
"""
