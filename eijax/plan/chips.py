"""What a chip of each TPU generation can do."""

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
  """One chip; figures are its maker's peaks.

  flops: bfloat16 multiply-adds a second, counted as two. hbm_bytes: what the compiler gives a program (`limit` of its own
  message when one does not fit), less than what is sold. hbm_bandwidth, ici_bandwidth: bytes a second; of
  the interconnect in one direction, all links of the chip together, half of the published bidirectional figure.
  chips_per_host: of a slice of several hosts. source: of flops and bandwidths.
  """

  name: str
  flops: float
  hbm_bytes: int
  hbm_bandwidth: float
  ici_bandwidth: float
  chips_per_host: int
  source: str


CHIPS = {chip.name: chip for chip in (
    Chip(name='v4', flops=275e12, hbm_bytes=int(30.75 * GIB), hbm_bandwidth=1200e9, ici_bandwidth=300e9, chips_per_host=4,
         source='https://cloud.google.com/tpu/docs/v4, https://arxiv.org/abs/2304.01433'),
    Chip(name='v5e', flops=197e12, hbm_bytes=int(15.75 * GIB), hbm_bandwidth=819e9, ici_bandwidth=200e9, chips_per_host=4,
         source='https://cloud.google.com/tpu/docs/v5e'),
    Chip(name='v5p', flops=459e12, hbm_bytes=int(95.74 * GIB), hbm_bandwidth=2765e9, ici_bandwidth=600e9, chips_per_host=4,
         source='https://cloud.google.com/tpu/docs/v5p'),
    Chip(name='v6e', flops=918e12, hbm_bytes=int(31.25 * GIB), hbm_bandwidth=1638e9, ici_bandwidth=400e9, chips_per_host=4,
         source='https://cloud.google.com/tpu/docs/v6e'),
)}
