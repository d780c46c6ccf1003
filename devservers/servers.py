"""Real servers for the outage lab and the tests: Valkey and PostgreSQL, from wheels, on 127.0.0.1.

Each server keeps its port and its folder over all restarts, as a real one would, so that its clients find it again
with the data it had. Each has the same verbs: start, stop, kill, freeze (it keeps its connections and says nothing)
and thaw.
"""

from devservers.postgres import Postgres as Postgres
from devservers.server import Server as Server
from devservers.server import ServerError as ServerError
from devservers.valkey import Valkey as Valkey
