"""Every target, for methods, heads and families: written whole, proven in a fresh process, refused when it differs."""

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from families import TINY, saved_encoders
from rankwise import config as configuration
from rankwise.errors import UserError
from rankwise.export import subject as subjects
from rankwise.export.command import export
from rankwise.export.targets import TARGETS
from rankwise.models import adapter_file, assemble

