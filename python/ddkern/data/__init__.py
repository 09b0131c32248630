# SPDX-License-Identifier: Apache-2.0
"""Data sets in, distilled sets out.

Importing this package needs numpy alone; Pillow, pyarrow, safetensors, scikit-learn and torch are
imported by the functions that need them.

Public names
------------
open_dataset, ImageDataset
    Labelled images from parquet files, folders, arrays, IDX files or scikit-learn's digits.
Normalization, Zca
    From pixels to the input of networks, and back.
stratified_split
    The same parts of a data set everywhere.
DistilledSet, Provenance
    The result of a distillation, with its file format.
Encoding, Decoder, register_decoder
    Synthetic images that are stored as something else.
save_image_folder, save_parquet, save_pt_files, load_pt_files
    The formats of others.
"""

from __future__ import annotations

from ddkern.data.dataset import ImageDataset
from ddkern.data.distilled_set import DistilledSet
from ddkern.data.encoding import Decoder, Encoding, register_decoder
from ddkern.data.exchange.image_folder import save_image_folder
from ddkern.data.exchange.parquet import save_parquet
from ddkern.data.exchange.pt_files import load_pt_files, save_pt_files
from ddkern.data.normalization import Normalization, Zca
from ddkern.data.opening import open_dataset
from ddkern.data.provenance import Provenance
from ddkern.data.splits import stratified_split

__all__ = [
    "Decoder",
    "DistilledSet",
    "Encoding",
    "ImageDataset",
    "Normalization",
    "Provenance",
    "Zca",
    "load_pt_files",
    "open_dataset",
    "register_decoder",
    "save_image_folder",
    "save_parquet",
    "save_pt_files",
    "stratified_split",
]
