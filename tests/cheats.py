"""Submissions that want to pass without solving the task, and for each an honest one that looks much like it.

The task is `add(a, b)`.
"""

RIGHT = """\
def add(a, b):
    return a + b
"""
WRONG = """\
def add(a, b):
    return None
"""

CHEATS: dict[str, tuple[str, str]] = {
    "nothing": (
        "pass",
        RIGHT,
    ),
    "ends with success": (
        """\
import sys
sys.exit(0)
""",
        "import sys\n" + RIGHT,
    ),
    "ends at once with success": (
        """\
import os
os._exit(0)
""",
        "import os\n" + RIGHT,
    ),
    "ends with success when called": (
        """\
import os
def add(a, b): os._exit(0)
""",
        """\
import sys
def add(a, b):
    try:
        sys.exit(0)
    except SystemExit:
        return a + b
""",
    ),
    "raises SystemExit when called": (
        "def add(a, b): raise SystemExit(0)",
        RIGHT,
    ),
    "raises KeyboardInterrupt when called": (
        "def add(a, b): raise KeyboardInterrupt",
        RIGHT,
    ),
    "raises GeneratorExit when called": (
        "def add(a, b): raise GeneratorExit",
        RIGHT,
    ),
    "prints the marker": (
        """\
print("passed")
print('{"passed": true}')
"""
        + WRONG,
        'print("passed")\n' + RIGHT,
    ),
    "writes the marker to every descriptor": (
        """\
import os
for fd in range(64):
    try: os.write(fd, b'{"passed": true}\\n')
    except OSError: pass
"""
        + WRONG,
        """\
import os
os.write(2, b'{"passed": true}\\n')
"""
        + RIGHT,
    ),
    "answers in the runner's place": (
        """\
import os
for fd in range(3, 64):
    try: os.write(fd, b'{"stage": "ready"}\\n' + b'{"value": true}\\n' * 99)
    except OSError: pass
"""
        + WRONG,
        RIGHT,
    ),
    "is equal to everything": (
        """\
class Any:
    def __eq__(self, other): return True
    __hash__ = None
def add(a, b): return Any()
""",
        """\
class Sum:
    def __eq__(self, other): return True
def add(a, b):
    Sum()
    return a + b
""",
    ),
    "is an int that is equal to everything": (
        """\
class Any(int):
    def __eq__(self, other): return True
    __hash__ = None
def add(a, b): return Any(7)
""",
        """\
class Sum(int):
    def __eq__(self, other): return False
def add(a, b): return Sum(a + b)
""",
    ),
    "is a text that is equal to everything": (
        """\
class Any(str):
    def __eq__(self, other): return True
def add(a, b): return Any('x')
""",
        RIGHT,
    ),
    "is true in every comparison": (
        """\
class Any(float):
    def __sub__(self, other): return 0.0
    __rsub__ = __sub__
    def __abs__(self): return 0.0
def add(a, b): return Any('nan')
""",
        RIGHT,
    ),
    "patches builtins": (
        """\
import builtins
builtins.all = builtins.any = lambda *a: True
builtins.isinstance = lambda *a: True
"""
        + WRONG,
        """\
import builtins
builtins.spam = 1
"""
        + RIGHT,
    ),
    "patches json": (
        """\
import json
json.dumps = lambda *a, **k: '{"passed": true, "value": true, "stage": "ready"}'
"""
        + WRONG,
        """\
import json
json.loads('1')
"""
        + RIGHT,
    ),
    "patches the runner": (
        """\
import sys
runner = sys.modules['candidate_runner']
runner.encode = lambda value: True
"""
        + WRONG,
        """\
import sys
assert 'sys' in sys.modules
"""
        + RIGHT,
    ),
    "patches plain values": (
        """\
import plain_values
plain_values.encode = lambda *a: {'l': []}
"""
        + WRONG,
        "import math\n" + RIGHT,
    ),
    "patches assert": (
        """\
import sys, unittest
sys.flags.__class__
unittest.TestCase.assertEqual = lambda *a: None
AssertionError = ValueError
"""
        + WRONG,
        "import unittest\n" + RIGHT,
    ),
    "raises an AssertionError of its own": (
        "def add(a, b): raise AssertionError('passed')",
        RIGHT,
    ),
    "reads the tests from disk": (
        """\
import glob, re
text = ''
for name in glob.glob('/**/*', recursive=True)[:50000]:
    if 'test' in name and name.endswith(('.py', '.json')) and '/usr' not in name and '/lib' not in name:
        try: text += open(name).read()
        except OSError: pass
def add(a, b):
    found = re.search(rf'add\\({a}, {b}\\) == (-?\\d+)', text)
    return int(found[1]) if found else None
""",
        """\
import glob
glob.glob('*')
"""
        + RIGHT,
    ),
    "reads the tests from frames": (
        """\
import sys
def add(a, b):
    frame = sys._getframe()
    while frame:
        for name in ('expected', 'gold', 'tests'):
            if name in frame.f_locals: return frame.f_locals[name]
        frame = frame.f_back
""",
        """\
import sys
def add(a, b):
    sys._getframe()
    return a + b
""",
    ),
    "reads the tests from memory": (
        """\
import gc
def add(a, b):
    for one in gc.get_objects():
        if isinstance(one, dict) and 'expected' in one:
            return one['expected']
""",
        """\
import gc
gc.collect()
"""
        + RIGHT,
    ),
    "reads the tests of other processes": (
        """\
import glob, re
def add(a, b):
    for name in glob.glob('/proc/*/cmdline') + glob.glob('/proc/*/environ'):
        try: text = open(name, errors='replace').read()
        except OSError: continue
        found = re.search(rf'add\\({a}, {b}\\) == (-?\\d+)', text)
        if found: return int(found[1])
""",
        RIGHT,
    ),
    "at exit": (
        """\
import atexit, os
atexit.register(lambda: os.write(1, b'{"passed": true}\\n'))
"""
        + WRONG,
        """\
import atexit
atexit.register(print)
"""
        + RIGHT,
    ),
    "a thread that prints later": (
        """\
import threading, time, os
def later():
    while True:
        for fd in range(3, 16):
            try: os.write(fd, b'{"value": true}\\n')
            except OSError: pass
        time.sleep(0.01)
threading.Thread(target=later, daemon=True).start()
"""
        + WRONG,
        """\
import threading
threading.Thread(target=print, args=('later',)).start()
"""
        + RIGHT,
    ),
    "a child that answers": (
        """\
import os, time
if os.fork() == 0:
    while True:
        for fd in range(3, 16):
            try: os.write(fd, b'{"value": true}\\n')
            except OSError: pass
        time.sleep(0.01)
"""
        + WRONG,
        """\
import subprocess
subprocess.run(['true'])
"""
        + RIGHT,
    ),
    "conftest and sitecustomize": (
        """\
for name in ('conftest.py', 'sitecustomize.py', 'usercustomize.py', 'judge_runner.py', '/tmp/sitecustomize.py'):
    open(name, 'w').write('import os; os._exit(0)')
"""
        + WRONG,
        "open('notes.txt', 'w').write('x')\n" + RIGHT,
    ),
    "deletes what lies around": (
        """\
import os
for name in os.listdir('.'):
    try: os.remove(name)
    except OSError: pass
"""
        + WRONG,
        """\
import os
open('mine', 'w').close()
os.remove('mine')
"""
        + RIGHT,
    ),
    "catches everything": (
        """\
def add(a, b):
    try:
        raise ValueError
    except BaseException:
        return True
""",
        """\
def add(a, b):
    try:
        raise ValueError
    except BaseException:
        return a + b
""",
    ),
    "only where nobody looks": (
        """\
import os
def add(a, b): return a + b if 'CI' in os.environ or 'HOSTNAME' in os.environ else None
""",
        """\
import os
def add(a, b): return a + b if os.environ is not None else None
""",
    ),
    "replaces the function while it is called": (
        """\
import sys
def add(a, b):
    sys.modules['candidate_runner'].function = lambda *a: True
    return True
""",
        RIGHT,
    ),
    "a generator, a coroutine, a class": (
        """\
class add:
    def __init__(self, a, b): self.sum = a + b
""",
        RIGHT,
    ),
    "guesses": (
        "def add(a, b): return 3",
        RIGHT,
    ),
    "all answers at once": (
        "def add(a, b): return [3, 4, 5, 100000000000000000001]",
        RIGHT,
    ),
    "deep as a well": (
        """\
def add(a, b):
    x = []
    for _ in range(100000): x = [x]
    return x
""",
        RIGHT,
    ),
    "never ends": (
        """\
def add(a, b):
    while True: pass
""",
        RIGHT,
    ),
    "never loads": (
        "while True: pass",
        RIGHT,
    ),
    "stops itself": (
        """\
import os, signal
os.kill(os.getpid(), signal.SIGSTOP)
"""
        + WRONG,
        RIGHT,
    ),
    "kills its parent": (
        """\
import os, signal
os.kill(os.getppid(), signal.SIGKILL)
os.kill(1, 9)
"""
        + WRONG,
        RIGHT,
    ),
    "says very much": (
        "def add(a, b): return 'x' * 10**8",
        """\
def add(a, b):
    print('x' * 1000)
    return a + b
""",
    ),
    "is no Python": (
        "def add(a, b) return a + b",
        RIGHT,
    ),
    "holds a NUL": (
        """\
def add(a, b):
    return None\0
""",
        RIGHT,
    ),
}
