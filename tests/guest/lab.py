"""What the scripts of the lab share: checks, namespaces, traffic, counters, devlink.

A check is `with check("its name"): ...`; it prints one line for the host, `ok NAME`,
`not ok NAME: WHY` or `skip NAME: WHY`, and the script goes on. `finish()` ends the script.
"""

import contextlib
import hashlib
import json
import os
import random
import shlex
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback

from basics import *
from devices import *
from figures import *
from traffic import *
