#!/bin/sh
# Puts a copy of the paho-mqtt in the virtual environment $1 into $2, as a version that was not tested: with $2 in
# PYTHONPATH, MQTT packets are handled one by one.
set -eu
installed=$("$1/bin/python" -c 'import paho; print(paho.__path__[0])')
rm -rf "$2"
mkdir -p "$2"
cp -R "$installed" "$2/paho"
sed -i 's/^__version__ = .*/__version__ = "untested"/' "$2/paho/mqtt/__init__.py"
PYTHONPATH=$2 "$1/bin/python" -c 'import paho.mqtt; assert paho.mqtt.__version__ == "untested"'
