"""What crosses a process boundary: inputs, outputs, state, records, definitions, HTTP bodies. No behaviour.

Instants are integer milliseconds since the epoch, UTC, and end in `_at`.
"""
