// A branch of the database for each pull request.
//
// `.config/lakeops.toml` in the repository has:   [connections.@connection@] and kind = "lakebase"
//
// Use it as the script path of a multibranch pipeline that discovers pull requests.
// Credentials (secret text): databricks-host, databricks-token. The agent has `lakeops` in its PATH.
//
// Jenkins starts nothing when a pull request is closed. The branch expires by itself after the time that
// the branch policy gives it; a webhook may build with ACTION = close earlier.
pipeline {
    agent any
    options {
        timeout(time: 30, unit: 'MINUTES')
        disableConcurrentBuilds()
    }
    parameters {
        choice(name: 'ACTION', choices: ['open', 'close'], description: 'open or close the pull request')
        string(name: 'PR_NUMBER', defaultValue: '', description: 'by default that of the build')
    }
    environment {
        DATABRICKS_HOST = credentials('databricks-host')
        DATABRICKS_TOKEN = credentials('databricks-token')
        LAKEOPS_STATE = "${env.WORKSPACE_TMP}/lakeops"
    }
    stages {
        stage('The branch of the pull request') {
            when { expression { (params.PR_NUMBER ?: env.CHANGE_ID)?.isInteger() } }
            environment {
                NUMBER = "${params.PR_NUMBER ?: env.CHANGE_ID}"
                ACTION = "${params.ACTION ?: 'open'}"
            }
            steps {
                sh '''
                    lakeops run pr_branch --connection @connection@ -p project=@project@ \
                        -p source=@source@ -p action="$ACTION" -p pr_number="$NUMBER"
                '''
            }
        }
    }
}
