"""All pairs of 64-bit hashes that differ in a few bits, without comparing each with each."""

from __future__ import annotations

import numpy as np

__all__ = ["hamming", "near_pairs"]

#: Below so many bits a part of a hash tells too little apart, and comparing all with all is faster.
_FEWEST_BITS = 8


def hamming(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return in how many bits the elements of two uint64 arrays differ.

    Example:
        >>> int(hamming(np.uint64(0b1011), np.uint64(0b0001)))
        2
    """
    bits = np.bitwise_xor(first, second)
    if hasattr(np, "bitwise_count"):  # NumPy 2
        return np.bitwise_count(bits)
    # bits are added within pairs, fours and bytes; the product sums the bytes into the highest one
    one, two, four = np.uint64(1), np.uint64(2), np.uint64(4)
    bits = bits - ((bits >> one) & np.uint64(0x5555555555555555))
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> two) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> four)) & np.uint64(0x0F0F0F0F0F0F0F0F)
    with np.errstate(over="ignore"):
        return ((bits * np.uint64(0x0101010101010101)) >> np.uint64(56)).astype(np.uint8)


def near_pairs(hashes: np.ndarray, distance: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions (i, j), i < j, of all hashes that differ in at most ``distance`` bits.

    Cut into ``distance + 1`` parts, two such hashes are equal in at least one part. So for each part the hashes are
    sorted by it, and only those with an equal part are compared: close to linear where hashes are spread out. Beyond 7
    bits the parts are too short to help and all are compared with all.

    Args:
        hashes: uint64 ``(n,)``, all different.
        distance: 0 to 64.

    Example:
        >>> first, second = near_pairs(np.array([0, 1, 255, 254], np.uint64), 1)
        >>> list(zip(first.tolist(), second.tolist()))
        [(0, 1), (2, 3)]
    """
    count = len(hashes)
    parts = distance + 1 if 64 // (distance + 1) >= _FEWEST_BITS else 1
    edges = [64 * part // parts for part in range(parts + 1)]
    found = [np.empty(0, np.int64)]
    for low, high in zip(edges, edges[1:]):
        mask = np.uint64(0 if parts == 1 else (1 << (high - low)) - 1)
        key = (hashes >> np.uint64(low)) & mask
        order = np.argsort(key, kind="stable")
        key, ordered = key[order], hashes[order]
        alive, offset = np.arange(count), 0
        while True:
            offset += 1
            # whatever has no neighbour with an equal part at this offset has none further on
            alive = alive[: np.searchsorted(alive, count - offset)]
            alive = alive[key[alive] == key[alive + offset]]
            if not len(alive):
                break
            near = alive[hamming(ordered[alive], ordered[alive + offset]) <= distance]
            first, second = order[near], order[near + offset]
            found.append(np.minimum(first, second) * count + np.maximum(first, second))
    pairs = np.unique(np.concatenate(found))
    return pairs // max(count, 1), pairs % max(count, 1)
