import json


def read_record(path):
    return json.loads(path.read_text())
