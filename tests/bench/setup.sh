#!/bin/sh
# Installs the peers of `make bench-loader`, `make bench-step` and `make peer-gate`: setup.sh FOLDER. Run again, it installs what is missing.
#   FOLDER/main   PyTorch (all that bench-step and peer-gate need), torchvision, albumentations with OpenCV, DALI
#   FOLDER/ffcv   FFCV, which shares main's torch
#   FOLDER/tf     TensorFlow and JAX, for the original implementation (whose files are not installed)
# Needs Python 3.11 and about 10 GB: PyPI's torch brings CUDA's libraries. The versions are those that were measured.
set -eu

folder=${1:?usage: setup.sh FOLDER}
python=${PYTHON:-python3}
fail() {
    echo "setup.sh: $1" >&2
    exit 1
}

command -v "$python" >/dev/null || fail "$python is not installed"
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
    fail "$("$python" --version) found, but FFCV's and DALI's versions here want Python 3.11; PYTHON=… names another"
"$python" -c 'import venv, ensurepip' 2>/dev/null || fail "Python's venv is missing (Debian: python3-venv)"

# FFCV is compiled against these.
packages="gcc g++ pkg-config libturbojpeg0-dev libjpeg62-turbo-dev zlib1g-dev libopencv-core-dev libopencv-imgproc-dev"
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    # shellcheck disable=SC2086 # a list of words
    apt-get install -y --no-install-recommends $packages
else
    echo "setup.sh: not root on Debian, so these must be there already: $packages"
fi

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
for name in main ffcv tf; do
    [ -x "$folder/$name/bin/python" ] || "$python" -m venv "$folder/$name"
done

"$folder/main/bin/pip" install torch==2.15.0 torchvision==0.29.2 nvidia-dali-cuda130==2.4.0 \
    albumentations==2.0.8 opencv-python-headless==5.0.0.93

"$folder/tf/bin/pip" install tensorflow-cpu==2.21.0 jax==0.10.2 jaxlib==0.10.2 tensorflow-datasets==4.9.10

# FFCV asks for all of OpenCV and uses two parts of it: a header and a .pc file that name only those.
opencv=$folder/opencv
mkdir -p "$opencv/include/opencv2"
printf '#include <opencv2/%s.hpp>\n' core imgproc >"$opencv/include/opencv2/opencv.hpp"
cat >"$opencv/opencv4.pc" <<END
Name: opencv4
Description: core and imgproc only
Version: 4.6.0
Libs: -lopencv_imgproc -lopencv_core
Cflags: -I$opencv/include -I/usr/include/opencv4
END
site='import sysconfig; print(sysconfig.get_path("purelib"))'
"$folder/main/bin/python" -c "$site" >"$("$folder/ffcv/bin/python" -c "$site")/zz-main.pth"
PKG_CONFIG_PATH=$opencv "$folder/ffcv/bin/pip" install ffcv==1.0.2 numba==0.68.1

echo "ready: make bench-loader bench-step peer-gate VENVS=$folder"
