"""The data of an outage, on real servers and in real worker processes: nothing that was acknowledged is destroyed.

Each test is a black box over HTTP. ``D…`` names what was once seen to happen, ``I…`` the invariant that forbids it.
"""
