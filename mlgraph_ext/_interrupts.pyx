"""A signal handler that defers signals, compiled: signals arrive between bytecodes, and there are none in here.

A handler that raises can therefore not end the installation or the removal of handlers halfway. It
runs in the calls of `signal.signal` alone, which are repeated until they have succeeded.
"""

import _signal  # its functions are C; those of `signal` are Python
import threading


cdef class Waiting:
    """A signal handler that defers signals while `holds` is set and forwards them otherwise.

    Use it in a ``with`` statement, which replaces the handlers of these signals and restores them at its
    end. The deferred signals are then delivered. It does nothing outside the main thread.

    If `impatient`, the second arrival of a signal sets `was_urged`: every signal is then forwarded at
    once, until `hand_on` is called. In a forked child, `was_urged` stays set.
    """

    cdef readonly dict handlers
    cdef readonly object thread
    cdef public bint holds, was_urged
    cdef tuple signals
    cdef dict came
    cdef readonly bint impatient

    def __init__(self, signals, *, impatient=False):
        self.signals, self.impatient = tuple(signals), impatient
        self.handlers, self.came = {}, {}
        self.thread = threading.get_ident()

    def __call__(self, number, frame):
        """Defer a signal or forward it."""
        if self.impatient and number in self.came:
            self.was_urged = True
        if self.holds and not self.was_urged:
            self.came[number] = frame
        else:
            self.came.pop(number, None)
            self.handlers[number](number, frame)

    def __enter__(self):
        if threading.get_ident() != threading.main_thread().ident:
            return self
        self.holds = True
        try:
            for number in self.signals:
                handler = _signal.getsignal(number)
                if callable(handler):
                    self.handlers[number] = handler
                    if not handles(number, self):
                        break
        except BaseException:
            self.release()
            raise
        return self

    def __exit__(self, *error):
        self.release()

    cdef release(self):
        """Restore the handlers, then deliver the deferred signals."""
        raised = None
        for number, handler in self.handlers.items():
            # A handler installed meanwhile stays. Each attempt fails at most by the handler of a signal that has just
            # arrived, or always in a sub-interpreter.
            for _ in range(1000):
                if _signal.getsignal(number) is not self:
                    break
                try:
                    _signal.signal(number, handler)
                except BaseException as error:
                    raised = after(raised, error)
        self.holds = False
        self.deliver(raised)

    def hand_on(self):
        """Deliver every deferred signal, even if the handler of an earlier one raises."""
        self.was_urged = self.was_urged and not self.holds  # stays set in a forked child
        self.deliver(None)

    cdef deliver(self, raised):
        came, self.came = self.came, {}  # a signal that arrives from now on neither joins these nor replaces one
        for number, frame in came.items():
            try:
                self.handlers[number](number, frame)
            except BaseException as error:
                raised = after(raised, error)
        if raised is not None:
            raise raised


cdef after(earlier, error):
    """The later of two exceptions, which tells of the earlier one."""
    if earlier is not None and error is not earlier and error.__context__ is None:
        error.__context__ = earlier
    return error


cdef bint handles(number, handler) except -1:
    """Install a handler for a signal, and return whether that was possible.

    It is not in a sub-interpreter, which receives no signals.
    """
    before = _signal.getsignal(number)
    try:
        _signal.signal(number, handler)
    except ValueError:
        try:  # A sub-interpreter raises again. If it does not, another signal's handler raised the ValueError.
            _signal.signal(number, before)
        except ValueError:
            return False
        raise
    return True
