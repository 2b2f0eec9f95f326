"""What layers and operations do where each row of a batch has its own task.

`operations` answers for torch's functions; layers that need a forward of their own are in
`special`.
"""
