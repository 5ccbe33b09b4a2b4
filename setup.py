"""Installs artifacts_jax: pip install -e . (extras: tensorflow, tensorboard, heif, voc, test, docs, cuda, tpu)."""

import re
import runpy
from pathlib import Path

from setuptools import find_packages, setup

README = (Path(__file__).parent / 'README.md').read_text(encoding='utf-8')
DOCS = ['sphinx>=9,<10', 'myst-parser>=5,<6', 'sphinx-book-theme>=1.4,<2', 'sphinx-copybutton>=0.5.2,<1']
# tensorflow-cpu has wheels for INTEL alone; on OTHER machines, as on ARM, those of tensorflow are without CUDA, too.
INTEL = 'platform_machine in "x86_64 AMD64" and sys_platform != "darwin"'
OTHER = 'platform_machine not in "x86_64 AMD64" or sys_platform == "darwin"'
TENSORFLOW = [f'tensorflow-cpu>=2.20,<3; {INTEL}', f'tensorflow>=2.20,<3; {OTHER}']  # prepare, and tf1
TENSORBOARD = ['tensorboard>=2.20,<3']  # shows what runs write
OPENCV = 'opencv-contrib-python-headless>=4.10,<6'  # selective search

setup(
    name='artifacts_jax',
    version=runpy.run_path(str(Path(__file__).parent / 'artifacts_jax' / 'version.py'))['__version__'],
    description='Self-supervised visual features by learning to spot artifacts, in JAX and Flax',
    # Without pictures and links that lead to other files of the repository.
    long_description=re.sub(r'!\[[^]]*\]\([^)]*\)\n*|\[([^]]*)\]\((?!https?:)[^)]*\)', r'\1', README),
    long_description_content_type='text/markdown',
    author='The authors of artifacts_jax',
    license='Apache-2.0',
    license_files=['LICENSE'],
    project_urls={'Paper': 'https://arxiv.org/abs/1806.05024'},
    keywords=['self-supervised learning', 'representation learning', 'computer vision', 'JAX', 'Flax'],
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
        'Typing :: Typed',
    ],
    python_requires='>=3.11',
    packages=[
        *find_packages(include=['artifacts_jax', 'artifacts_jax.*']),
        'artifacts_jax.configs',
        'artifacts_jax.configs.transfer',
    ],
    entry_points={'console_scripts': ['artifacts-jax = artifacts_jax.cli:main']},
    package_dir={'artifacts_jax.configs': 'configs'},
    package_data={'artifacts_jax': ['py.typed']},
    install_requires=[
        'absl-py>=2.1',
        'jax>=0.8.2,<0.13',
        'flax>=0.12,<0.14',
        'jaxtyping>=0.3.4,<0.4',
        'optax>=0.2.5,<0.4',
        'orbax-checkpoint>=0.11.26,<1',
        'tensorflow-datasets>=4.9.10,<5',
        'ml-collections>=1.1,<2',
        'clu>=0.0.12,<0.1',
        'importlib-resources>=6',  # tfds 4.9.10 imports it for a builder outside its own package, undeclared
        'tensorboardX>=2.6.2,<3',  # writes what TensorBoard shows, without TensorFlow
        'grain>=0.2.15,<0.3',
        'google-crc32c>=1.5,<2',  # the checksums of TFRecord files
        'pillow>=11.3,<14',  # the first with AVIF
        'simplejpeg>=1.8,<2',
        'numpy>=2.0',
        'rich>=13',
        'matplotlib>=3.10.7',
        'scikit-image>=0.24,<1',
        'scikit-learn>=1.5,<2',
        'scipy>=1.13,<2',  # MATLAB's files
    ],
    extras_require={
        'tensorflow': TENSORFLOW,
        'tensorboard': TENSORBOARD,
        'heif': ['pillow-heif>=1.0,<2'],
        'voc': [OPENCV],
        'cuda': ['jax[cuda13]>=0.8.2,<0.13'],
        'tpu': ['jax[tpu]>=0.8.2,<0.13'],
        'docs': DOCS,
        'test': [
            'pytest>=8,<10',
            'pytest-xdist>=3.8,<4',
            'beartype>=0.21,<0.24',  # checks annotations in tests
            'hypothesis>=6.130,<7',
            'onnx>=1.17,<2',  # with its runtime, what others computed of the same operations
            'onnxruntime>=1.22,<2',
            'pillow-heif>=1.0,<2',
            'mean-average-precision==2024.1.5.0',  # what others computed of detections
            OPENCV,
            *TENSORFLOW,
            *TENSORBOARD,
            'ruff>=0.16',  # the first that formats Markdown
            'mypy>=2.4,<3',
            'import-linter>=2.17,<3',
            'grimp>=3.14,<4',  # which tests a change affects
            *DOCS,  # a test builds the documentation
        ],
    },
)
