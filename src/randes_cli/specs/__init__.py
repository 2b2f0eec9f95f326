"""Frozen records shared by all layers: dtypes, tensors, transforms, options."""

from randes_cli.specs.options import DEVICES as DEVICES
from randes_cli.specs.options import ENGINES as ENGINES
from randes_cli.specs.options import EditOptions as EditOptions
from randes_cli.specs.options import OpenOptions as OpenOptions
from randes_cli.specs.options import PackOptions as PackOptions
from randes_cli.specs.options import RunOptions as RunOptions
from randes_cli.specs.options import TaskInput as TaskInput
from randes_cli.specs.options import check_shard_size as check_shard_size
from randes_cli.specs.options import check_task_name as check_task_name
from randes_cli.specs.tensors import DTYPES as DTYPES
from randes_cli.specs.tensors import FLOAT_DTYPES as FLOAT_DTYPES
from randes_cli.specs.tensors import FORMAT_NAME as FORMAT_NAME
from randes_cli.specs.tensors import FORMAT_VERSION as FORMAT_VERSION
from randes_cli.specs.tensors import ITEM_SIZE as ITEM_SIZE
from randes_cli.specs.tensors import Dtype as Dtype
from randes_cli.specs.tensors import TensorInfo as TensorInfo
from randes_cli.specs.transform import PRESETS as PRESETS
from randes_cli.specs.transform import SHARES as SHARES
from randes_cli.specs.transform import BaseStorage as BaseStorage
from randes_cli.specs.transform import Rest as Rest
from randes_cli.specs.transform import Shuffle as Shuffle
from randes_cli.specs.transform import Signs as Signs
from randes_cli.specs.transform import Transform as Transform
from randes_cli.specs.transform import check_pattern as check_pattern
from randes_cli.specs.transform import task_seed as task_seed
