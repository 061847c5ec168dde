# SPDX-License-Identifier: Apache-2.0
"""Which tokens a training step sees.

Owns the mixture of the parts, the cutting of documents into windows and the
order of the windows. All of it follows from the seed alone, so that two
models trained with one seed see the same tokens in the same order.
"""

import os

import numpy as np

# Share of the sampled windows. Short simple stories come first.
MIX = {"A": 0.55, "B": 0.23, "C": 0.10, "D": 0.12}
MIX_EXTRA = {"A": 0.36, "B": 0.24, "C": 0.12, "D": 0.16, "E": 0.12}
EOS_ID = 0


class Part:
    """One part's windows, epoch after epoch, in an order drawn by the seed."""

    def __init__(self, path, key, context):
        z = np.load(path)
        self.ids, self.start = z["ids"], z["start"]
        self.key, self.context, self.epoch = key, context, -1
        self.windows, self.at, self.stream = [], 0, None

    def next(self):
        if self.at == len(self.windows):
            self.begin(self.epoch + 1)
        p = self.windows[self.at]
        self.at += 1
        return self.stream[p:p + self.context + 1]

    def begin(self, epoch):
        """Shuffles the documents, joins them with end marks, cuts windows.

        A window starts where a document starts (three in ten times with the
        end mark before it) or where the window before it ended. A document
        that begins in the second half of a window and is cut by it is read
        again from its start, so that short stories are seen whole."""
        rng = np.random.default_rng(self.key + [epoch])
        n = len(self.start) - 1
        pieces, begins, at = [], [], 0
        mark = np.array([EOS_ID], self.ids.dtype)
        for d in rng.permutation(n):
            doc = self.ids[self.start[d]:self.start[d + 1]]
            pieces += [mark, doc]
            begins.append(at)
            at += 1 + len(doc)
        stream = np.concatenate(pieces + [mark])
        begins = np.array(begins + [len(stream)])
        windows, p, half = [], 0, self.context // 2
        while p + self.context + 1 <= len(stream):
            fresh = begins[np.searchsorted(begins, p)] == p
            windows.append(p + int(fresh and rng.random() > 0.3))
            last = begins[np.searchsorted(begins, p + self.context) - 1]
            p = last if last > p + half else p + self.context
        if windows[-1] + self.context + 1 > len(stream):
            windows.pop()
        self.windows = rng.permutation(np.array(windows)).tolist()
        self.stream, self.epoch, self.at = stream, epoch, 0


class Mixture:
    """Batches of windows [rows, context + 1] drawn from all parts."""

    def __init__(self, folder, context, seed, extra=False):
        mix = MIX_EXTRA if extra else MIX
        self.names = list(mix)
        self.share = np.array([mix[k] for k in self.names])
        self.share = self.share / self.share.sum()
        self.parts = [Part(os.path.join(folder, k + ".npz"), [seed, i],
                           context) for i, k in enumerate(self.names)]
        self.owed = np.zeros(len(self.names))
        self.count = np.zeros(len(self.names), np.int64)

    def batch(self, rows):
        """The part most in arrears is next: shares hold at every moment."""
        out = []
        for _ in range(rows):
            self.owed += self.share
            i = int(np.argmax(self.owed))
            self.owed[i] -= 1
            self.count[i] += 1
            out.append(self.parts[i].next())
        return np.stack(out).astype(np.int64)

    def skip(self, rows):
        """Takes rows off without looking at them, to resume a run."""
        for _ in range(rows):
            self.batch(1)

    def report(self):
        return {k: {"windows": int(c), "epochs": p.epoch + p.at /
                    max(1, len(p.windows))}
                for k, c, p in zip(self.names, self.count, self.parts)}
